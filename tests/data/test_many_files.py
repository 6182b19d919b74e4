# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.data import dataset
from mlimages_jax.data.dataset import DataSet, DataSetError
from tests.support import record_files


@pytest.mark.parametrize("allowed", [258, 259])
def test_more_record_files_than_may_be_open_are_refused(tmp_path, monkeypatch, allowed):
    """256 files are kept free for others."""
    data = DataSet.open(record_files.write_set(tmp_path, [1, 1, 1]))
    monkeypatch.setattr(dataset.open_files, "allow", lambda wanted: min(wanted, allowed))
    if allowed == 259:
        assert len(data.records("train")) == 3
        return
    with pytest.raises(DataSetError, match="3 record files are read but only 258 files may be"):
        data.records("train")
