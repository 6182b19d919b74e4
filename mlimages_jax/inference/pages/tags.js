const byId = (id) => document.getElementById(id);

function make(name, text = "", classes = "") {
  const element = document.createElement(name);
  element.textContent = text;
  element.className = classes;
  return element;
}

// The tags as a tree of {name, tag, best, children}; ancestors that are no tags have tag null.
function treeOf(tags) {
  const root = {children: new Map(), best: 0};
  for (const tag of tags) {
    let node = root;
    for (const [depth, name] of tag.path.entries()) {
      const isLast = depth === tag.path.length - 1;
      let key = name;
      // Classes may share a name, but each of them is a tag of its own.
      if (isLast && node.children.get(key)?.tag) key = `${name}\n${tag.index}`;
      if (!node.children.has(key)) {
        node.children.set(key, {name, tag: null, best: 0, children: new Map()});
      }
      node = node.children.get(key);
      node.best = Math.max(node.best, tag.score);
    }
    node.tag = tag;
  }
  return root;
}

function listOf(node) {
  const list = make("ul");
  for (const child of [...node.children.values()].sort((a, b) => b.best - a.best)) {
    const item = make("li");
    const line = make("div", "", "tag");
    const name = make("span", child.name.split(",")[0], child.tag ? "" : "quiet");
    name.title = child.name;
    line.append(name);
    if (child.tag) {
      const meter = make("meter");
      meter.value = child.tag.score;
      meter.setAttribute("aria-hidden", "true");  // the number says the same
      line.append(meter, make("b", child.tag.score.toFixed(2)));
      if (child.tag.threshold !== null) line.title = `threshold ${child.tag.threshold.toFixed(2)}`;
    }
    item.append(line);
    if (child.children.size) item.append(listOf(child));
    list.append(item);
  }
  return list;
}
