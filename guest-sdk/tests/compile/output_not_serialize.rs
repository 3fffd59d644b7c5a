#![allow(unused)]
use dormouse::prelude::*;

struct Opaque;

#[dormouse::function(id = "f")]
async fn f() -> dormouse::Result<Opaque> {
    Ok(Opaque)
}

fn main() {}
