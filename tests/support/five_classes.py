# SPDX-License-Identifier: BSD-3-Clause
"""A class list that fits on a hand: animal > dog > poodle, and vehicle > car."""

CLASS_LIST = """\
category_index\tcategory_id\tindex_of_parent_category\tcategory name
0\tn0\t-1\tanimal
1\tn1\t0\tdog, domestic dog
2\tn2\t1\tpoodle
3\tn3\t-1\tvehicle
4\tn4\t3\tcar
"""
