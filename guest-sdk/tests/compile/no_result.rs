#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f() {}

fn main() {}
