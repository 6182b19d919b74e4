# SPDX-License-Identifier: BSD-3-Clause
"""Labels of classes that occur together, by the predictions of a model."""
