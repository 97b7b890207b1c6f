//! The providers: host patterns, calibration constants, prices.
