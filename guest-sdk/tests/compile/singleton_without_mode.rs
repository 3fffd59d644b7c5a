#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", singleton(key = "event.data.user"))]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
