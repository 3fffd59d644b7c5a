#![allow(unused)]
use dormouse::prelude::*;

struct Opaque;

#[dormouse::function(id = "f")]
async fn f(event: Event<Opaque>) -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
