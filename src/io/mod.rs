//! Files: volumes, k-space, scans.
