//! The backend's database: migrations and portable SQL.
