#![allow(unused)]
use dormouse::prelude::*;

async fn f() -> dormouse::Result<()> {
    Ok(())
}

dormouse::module!(f);

fn main() {}
