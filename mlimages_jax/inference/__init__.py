# SPDX-License-Identifier: BSD-3-Clause
"""Images of any origin through a trained network: outputs, tags, figures."""
