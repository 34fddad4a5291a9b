//! Forward operators with exact adjoints.
