#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f<T>() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
