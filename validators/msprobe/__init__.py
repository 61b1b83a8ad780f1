"""The files that Huawei's `msprobe` compares, written and read without it.

msprobe is the package mindstudio-probe (https://pypi.org/project/mindstudio-probe/,
https://gitcode.com/Ascend/msprobe). What is known of its files was read in version 26.2.0 and tried with it;
a path such as ``msaccucmp/...`` in this room is one inside that package.
"""
