"""The cases; the package is in trainpace/. No module here is imported by this name, and there is a reason for the file.

The package was once called `perf`. A judge of that time, whose checkout is on the path, would measure its own
`perf.trainers` in the place of a head that has none: beside this file it finds none, and the run is invalid.
"""
