# SPDX-License-Identifier: BSD-3-Clause
"""Image shards: images as they arrived in ArrayRecord files, with a Parquet manifest beside each.

A folder of image shards, on a disk or in a bucket, holds

    layout.json                        how the names are divided into parts
    shards/<part>-<attempt>-<n>.array_record    images: one record each, with its name
    shards/<part>-<attempt>-<n>.parquet         the shard's manifest: a row for every name handled
    repeated_contents.parquet          contents of too many names: placeholders, not images

The manifest is written last and commits the shard; a file of records without one is none. Every
attempt at a part has names of its own, so nothing is ever overwritten, and two attempts, of which
one was believed dead, do no harm: a name with several rows has one effective row (`index`).
"""
