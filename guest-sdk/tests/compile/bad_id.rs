#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "Create_Workflow")]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
