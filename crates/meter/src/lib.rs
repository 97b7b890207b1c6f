//! Cumulative byte counts and time in, exchanges and token estimates out.
