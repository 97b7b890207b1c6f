//! Lock, privacy hours, mode and budget in; a verdict out.
