#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", on(cron = "TZ=Europe/Paris 9 * * *"))]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
