# SPDX-License-Identifier: BSD-3-Clause
import base64
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.download import open_images_table
from mlimages_jax.prepare.download.image_sources import image_sources
from mlimages_jax.prepare.download.open_images_table import OpenImagesTable, photo_key
from mlimages_jax.prepare.storing import Expected

HEADER = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation"
)
MD5 = bytes(range(16))
ROWS = [
    "0a,train,https://farm3.staticflickr.com/2034/1557324960_1ae893fed8_o.jpg,https://l,https://cc,"
    f'https://p,"Ann, B.","a ""title""\nof two lines",1234,{base64.b64encode(MD5).decode()},'
    "https://c2.staticflickr.com/2034/1557324960_0000000000_z.jpg,90.0",
    "0b,validation,https://farm1.staticflickr.com/5/77_ab_o.png,l,cc,p,Bob,t,,not base64,,",
    "0c,test,https://example.org/77_ab_o.jpeg?x,l,cc,p,Cid,t,1,,,0.0",
    "0d,train,https://farm1.staticflickr.com/5/77_cd_o.jpg,l,cc,p,Dan,t,5,,,",
]


def table(folder, rows=ROWS, header=HEADER):
    path = folder / "images.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return OpenImagesTable([path], folder / "index.sqlite")


def test_photos_are_found_by_id_and_secret_whatever_the_host(tmp_path):
    found = table(tmp_path)
    assert len(found) == 3  # one does not lie at Flickr
    url = "https://c4.staticflickr.com/9/2034/1557324960_1ae893fed8_o.jpg"
    photos = found.find(
        [url, "https://a.org/1.jpg", "https://f/77_ee_o.jpg", "https://f/77_cd_o.jpg"]
    )
    assert set(photos) == {url, "https://f/77_cd_o.jpg"}
    photo = photos[url]
    assert photo == (
        1557324960, "1ae893fed8", "0a", "train",
        "https://farm3.staticflickr.com/2034/1557324960_1ae893fed8_o.jpg",
        "https://c2.staticflickr.com/2034/1557324960_0000000000_z.jpg",
        "https://cc", "Ann, B.", 1234, MD5, 90.0,
    )  # fmt: skip
    assert photos["https://f/77_cd_o.jpg"].image_id == "0d"
    bare = found.find(["https://x/77_ab_o.jpg"])["https://x/77_ab_o.jpg"]
    assert (bare.num_bytes, bare.md5, bare.thumbnail_url, bare.rotation) == (None, None, "", None)
    found.close()


def test_many_urls_at_once(tmp_path):
    rows = [f"{i:x},train,https://f/{i}_a{i:x}_o.jpg,l,cc,p,A,t,1,,," for i in range(2000)]
    found = table(tmp_path, rows)
    photos = found.find([f"https://other/{i}_a{i:x}_o.jpg" for i in range(0, 4000, 2)])
    assert sorted(photo.photo_id for photo in photos.values()) == list(range(0, 2000, 2))
    found.close()


def test_the_index_is_made_once(tmp_path):
    table(tmp_path).close()
    index = tmp_path / "index.sqlite"
    made = index.stat().st_mtime_ns
    OpenImagesTable([tmp_path / "images.csv"], index).close()
    assert index.stat().st_mtime_ns == made
    table(tmp_path, ROWS[:1]).close()
    os.utime(tmp_path / "images.csv", ns=(1, 1))
    again = OpenImagesTable([tmp_path / "images.csv"], index)
    assert len(again) == 1  # another file of the same name
    again.close()
    index.write_text("not an index")
    mended = OpenImagesTable([tmp_path / "images.csv"], index)
    assert len(mended) == 1
    mended.close()
    assert not list(tmp_path.glob("*.unfinished"))


def test_malformed_rows_are_left_out(tmp_path):
    found = table(tmp_path, ["too,few,columns", *ROWS, "1,2,3,4,5,6,7,8,9,10,11,12,13"])
    assert len(found) == 3
    found.close()


def test_another_table_names_the_columns(tmp_path):
    with pytest.raises(PrepareError, match=r"images\.csv: .*'Subset'.*with the columns ImageID"):
        table(tmp_path, ["0a,verification,/m/0,1"], "ImageID,Source,LabelName,Confidence")
    assert not (tmp_path / "index.sqlite").exists()
    with pytest.raises(PrepareError, match=r"images\.csv"):
        table(tmp_path, [], "")
    with pytest.raises(FileNotFoundError):
        OpenImagesTable([tmp_path / "absent.csv"], tmp_path / "index.sqlite")


def test_photo_keys_of_the_published_list(tencent_dir):
    lines = (tencent_dir / "train_urls_tiny.txt").read_text().splitlines()
    keys = [photo_key(line.split("\t")[0]) for line in lines]
    assert keys[0] == (1557324960, "1ae893fed8")
    assert len(set(keys)) == 100 and None not in keys


@pytest.mark.parametrize(
    "url",
    ["https://a/1_x_o.jpg", "https://a/1_a_z.jpg", "https://a/1_a_o.jpg?b", "https://a/_a_o.jpg"],
)
def test_other_urls_have_no_key(url):
    assert photo_key(url) is None


def test_sources_in_the_chosen_order(tmp_path):
    found = table(tmp_path)
    url = "https://c4.staticflickr.com/9/2034/1557324960_1ae893fed8_o.jpg"
    photo = found.find([url])[url]
    original = Expected(1234, MD5)
    assert image_sources(url, photo, ("list", "thumbnail", "mirror", "original")) == [
        ("list", url, original),
        ("thumbnail", photo.thumbnail_url, Expected()),
        ("mirror", "https://open-images-dataset.s3.amazonaws.com/train/0a.jpg", Expected()),
        ("original", photo.original_url, original),
    ]
    same = image_sources(photo.original_url, photo, ("original", "list"))
    assert same == [("original", photo.original_url, original)]
    bare = found.find(["https://x/77_ab_o.jpg"])["https://x/77_ab_o.jpg"]
    (mirror,) = image_sources("https://x", bare, ("thumbnail", "mirror"))
    assert mirror.name == "mirror"
    assert image_sources(url, None, ("mirror",)) == [("list", url, Expected())]
    found.close()


def test_workers_that_start_together_make_one_index(tmp_path, monkeypatch):
    table(tmp_path).close()
    (tmp_path / "index.sqlite").unlink()
    make, made, both = open_images_table._make, [], threading.Barrier(2)

    def counted(*arguments):
        made.append(arguments)
        make(*arguments)

    def length(_):
        both.wait()
        found = OpenImagesTable([tmp_path / "images.csv"], tmp_path / "index.sqlite")
        try:
            return len(found)
        finally:
            found.close()

    monkeypatch.setattr(open_images_table, "_make", counted)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(length, range(2))) == [3, 3]
    assert len(made) == 1
