//! Reading and checking, on a local vault and an embedded catalog.

mod checking;
mod reading;
mod world;

use world::{World, time};
