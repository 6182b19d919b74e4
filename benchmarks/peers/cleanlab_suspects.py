# SPDX-License-Identifier: BSD-3-Clause
"""The peer of suspects.py: cleanlab's search for label errors, on the same probabilities.

Runs in an interpreter that has cleanlab, without this package:

    python cleanlab_suspects.py PREDICTIONS.npz ISSUES.npy

PREDICTIONS.npz has `probabilities`, float32 [n, C], by a network that did not see the images, and
`given`, bool [n, C]. ISSUES.npy gets which labels cleanlab takes for errors, bool [n, C].
"""

import sys

import numpy as np
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class


def main() -> None:
    """Reads the predictions and writes the issues."""
    data = np.load(sys.argv[1])
    labels = [np.flatnonzero(row).tolist() for row in data["given"]]
    issues = find_multilabel_issues_per_class(labels, data["probabilities"], n_jobs=1)
    np.save(sys.argv[2], np.asarray(issues, bool))


if __name__ == "__main__":
    main()
