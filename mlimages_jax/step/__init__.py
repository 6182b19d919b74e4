# SPDX-License-Identifier: BSD-3-Clause
"""The pure training step: state, losses, optimizers, schedules and device augmentation."""
