#![allow(unused)]
use dormouse::prelude::*;

dormouse::module!();

fn main() {}
