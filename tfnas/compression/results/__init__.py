"""Settings and results of jobs: records that print themselves.

Reports (:mod:`tfnas.reports`) read these records; no record imports a report.
"""
