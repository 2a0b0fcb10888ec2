//! All suites that are more than one crate's own: the house rules, what needs network namespaces, what needs the booted
//! machine. One program, so that it is linked once.

mod house;
mod vm;
