//! What needs the booted machine.
