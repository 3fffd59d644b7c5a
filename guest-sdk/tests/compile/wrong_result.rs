#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f() -> String {
    String::new()
}

fn main() {}
