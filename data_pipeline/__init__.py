"""Poses from files to batches: skeletons, datasets, distorters, augmenters, normalizers, formats."""
