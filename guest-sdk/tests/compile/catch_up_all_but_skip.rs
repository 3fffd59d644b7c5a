#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", on(cron = "0 9 * * *", catch_up = "all"))]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
