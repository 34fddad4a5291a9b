//! Pictures: montages, curves, reports.
