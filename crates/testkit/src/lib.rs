//! Provider simulator, fleet simulator, fault injector.
