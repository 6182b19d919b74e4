"use strict";
// The class tree and the charts. Text from data is only ever set as textContent.
const report = JSON.parse(document.getElementById("data").textContent);
const AT_ONCE = 100;  // classes that are added to a list, more by a button

function make(name, classes = "", text = "") {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  if (text) element.textContent = text;
  return element;
}

function shown(value) {
  if (value === null || value === undefined) return "–";
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
}

// Builds lists of classes; those below a class exist once it has been opened.
class Tree {
  constructor(tree, place) {
    Object.assign(this, tree);
    this.place = place;
    this.children = new Map();
    this.parents.forEach((parent, i) => {
      if (!this.children.has(parent)) this.children.set(parent, []);
      this.children.get(parent).push(i);
    });
    this.texts = this.names.map((name, i) => `${name}\n${this.ids[i]}`.toLowerCase());
    this.below = this.countBelow();
    this.order = "name";
    this.text = "";
  }

  countBelow() {
    const below = this.parents.map(() => 0);
    this.parents.forEach((parent) => {
      for (let i = parent; i >= 0; i = this.parents[i]) below[i]++;
    });
    return below;
  }

  sorted(classes) {
    const byName = (a, b) => this.names[a].localeCompare(this.names[b]);
    if (this.order === "name") return [...classes].sort(byName);
    const values = this.columns[Number(this.order)].values;
    const value = (i) => values[i] ?? -Infinity;
    return [...classes].sort((a, b) => value(b) - value(a) || byName(a, b));
  }

  list(classes, withPath) {
    const list = make("ul");
    const ordered = this.sorted(classes);
    const addMore = (start) => {
      const items = ordered.slice(start, start + AT_ONCE).map((i) => this.item(i, withPath));
      list.append(...items);
      const left = ordered.length - start - items.length;
      if (start) items[0]?.querySelector("button").focus();
      if (left <= 0) return;
      const item = make("li");
      const more = make("button", "more", `Show ${Math.min(left, AT_ONCE)} of ${left} more`);
      more.type = "button";
      more.addEventListener("click", () => { item.remove(); addMore(start + AT_ONCE); });
      item.append(more);
      list.append(item);
    };
    addMore(0);
    return list;
  }

  item(i, withPath) {
    const item = make("li");
    const row = make("button", "row");
    row.type = "button";
    row.setAttribute("aria-expanded", "false");
    const name = make("span", "name", this.names[i]);
    if (this.below[i]) name.append(make("span", "below", ` (${shown(this.below[i])} below)`));
    row.append(name);
    for (const column of this.columns.filter((one) => one.is_main)) {
      row.append(this.figure(column, i));
    }
    item.append(row);
    if (withPath && this.parents[i] >= 0) item.append(make("div", "about quiet", this.path(i)));
    row.addEventListener("click", () => {
      const open = row.getAttribute("aria-expanded") !== "true";
      row.setAttribute("aria-expanded", String(open));
      if (open) item.append(this.about(i), this.list(this.children.get(i) ?? [], false));
      else while (row.nextSibling) row.nextSibling.remove();
    });
    return item;
  }

  figure(column, i) {
    const value = column.values[i];
    const figure = make("span", "figure");
    if (column.is_fraction && value !== null) {
      const bar = make("span", "bar");
      bar.style.setProperty("--part", value);
      figure.append(bar);
    }
    const text = column.is_fraction && value !== null ? value.toFixed(3) : shown(value);
    figure.append(text, make("small", column.is_fraction ? "unseen" : "", ` ${column.name}`));
    return figure;
  }

  about(i) {
    const about = make("div", "about");
    const list = make("dl");
    const say = (name, text) => {
      const pair = make("div");
      pair.append(make("dt", "", name), make("dd", "", text));
      list.append(pair);
    };
    say("id", this.ids[i]);
    if (this.parents[i] >= 0) say("below", this.path(i));
    for (const column of this.columns.filter((one) => !one.is_main)) {
      say(column.name, shown(column.values[i]));
    }
    about.append(list);
    for (const position of (this.images[i] ?? []).slice(0, 12)) {
      const image = document.querySelector(`img[data-image="${position}"]`).cloneNode();
      image.removeAttribute("data-image");
      about.append(image);
    }
    return about;
  }

  path(i) {
    const names = [];
    for (let above = this.parents[i]; above >= 0; above = this.parents[above]) {
      names.unshift(this.names[above]);
    }
    return names.join(" › ");
  }

  show() {
    const words = this.text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = words.length
      ? this.texts.flatMap((text, i) => (words.every((word) => text.includes(word)) ? [i] : []))
      : this.children.get(-1) ?? [];
    document.getElementById("found").textContent = words.length
      ? `${shown(found.length)} of ${shown(this.names.length)} classes`
      : `${shown(this.names.length)} classes`;
    this.place.replaceChildren(this.list(found, words.length > 0));
  }
}

function showTree() {
  const tree = new Tree(report.tree, document.getElementById("tree"));
  document.getElementById("filter").addEventListener("input", (event) => {
    tree.text = event.target.value;
    tree.show();
  });
  document.getElementById("order").addEventListener("change", (event) => {
    tree.order = event.target.value;
    tree.show();
  });
  tree.show();
}

// The rows of the tree, for charts of all classes.
function rowsOfClasses() {
  const {names, columns} = report.tree;
  return names.map((name, i) =>
    Object.fromEntries([["name", name], ...columns.map((one) => [one.name, one.values[i]])]));
}

// Draws the charts one by one while nothing else is to be done, and last those of all classes.
async function drawCharts() {
  const options = {actions: false, renderer: "svg", tooltip: {theme: "custom"}};
  const whenIdle = window.requestIdleCallback ?? window.setTimeout;
  const charts = [...document.querySelectorAll("[data-chart]")].map((place) => {
    const specification = report.charts[Number(place.dataset.chart)];
    return {place, specification, large: "classes" in specification.datasets};
  });
  for (const {place, specification, large} of charts.sort((a, b) => a.large - b.large)) {
    await new Promise((resolve) => whenIdle(resolve));
    if (large) specification.datasets.classes = rowsOfClasses();
    await window.vegaEmbed(place, specification, options);
  }
  document.documentElement.dataset.ready = "true";
}

for (const button of document.querySelectorAll("section > .more")) {
  button.addEventListener("click", () => {
    for (const item of button.previousElementSibling.children) item.hidden = false;
    button.remove();
  });
}
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details.printed")) details.open = true;
});
if (report.tree) showTree();
window.addEventListener("load", drawCharts);
