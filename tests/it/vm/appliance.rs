//! The appliance's own disk, booted by firmware: flashed, installed, updated. These begin first, as they take longest.

mod image;
mod installation;
mod updates;
