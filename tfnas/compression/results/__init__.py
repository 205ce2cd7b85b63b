"""What jobs are asked for and what they return: records that print themselves.

Reports (:mod:`tfnas.reports`) read these records; no record imports a report.
"""
