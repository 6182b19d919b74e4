# SPDX-License-Identifier: BSD-3-Clause
"""Downloads like the script of ML-Images, with urllib in a thread pool, plus verification.

python -m peers.urllib_download LIST --output FOLDER --threads 64
"""

import argparse
import io
import json
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

TIMEOUT = 30  # seconds


def download(url: str, path: Path) -> str:
    """Reads a URL, decodes it as a check and writes the file; returns the outcome in one word."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            body = response.read()
        with Image.open(io.BytesIO(body)) as image:
            image.load()
        path.write_bytes(body)
    except Exception as error:  # the original catches everything too
        return type(error).__name__
    return "ok"


def main() -> None:
    """Downloads a list and prints the number of each outcome."""
    parser = argparse.ArgumentParser(description="Downloads a list with urllib and threads.")
    parser.add_argument("list", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=64)
    options = parser.parse_args()
    options.output.mkdir(parents=True)
    urls = options.list.read_text(encoding="utf-8").split()
    paths = [options.output / f"{i:08d}.jpg" for i in range(len(urls))]
    with ThreadPoolExecutor(options.threads) as pool:
        print(json.dumps(Counter(pool.map(download, urls, paths))))


if __name__ == "__main__":
    main()
