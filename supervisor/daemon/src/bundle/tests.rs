//! The bundle domain as a whole on a scripted machine and a real store.

mod cancel;
mod held;
mod kill;
mod lives;
mod provided;
mod retries;
mod revisions;
mod scripted;
mod telling;
mod turns;
mod volumes;
