//! A module that needs what no Dormouse offers.

use dormouse::prelude::*;

mod vault {
    wit_bindgen::generate!({
        inline: "
            package acme:vault@1.0.0;
            interface doors {
                open: func(name: string) -> bool;
            }
            world visitor {
                import doors;
            }
        ",
    });
}

/// Opens a door that is not there.
#[dormouse::function(id = "open", on(event = "test/open"))]
async fn open(step: Step) -> dormouse::Result<bool> {
    Ok(step
        .run("open", || Ok(vault::acme::vault::doors::open("front")))
        .await?)
}

dormouse::module!(open);
