#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", on(weather = "rain"))]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
