//! Versions of the guest `swaps`, which is a different one for each digest.

use bytes::Bytes;
use dormouse_core::Digest;
use dormouse_store::read::Run;
use serde::Deserialize;

use super::support::component;

/// How a version differs from the first: the guest's own words, in its own order.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    First,
    Compatible,
    Appending,
    Inserting,
    Reordering,
    Argument,
    Trapping,
    TrappingLater,
}

/// The `number`th version of a kind: the component with a section that says nothing.
pub(super) fn version(kind: Kind, number: u32) -> Bytes {
    let component = component("swaps");
    let fits = |nonce: &u32| {
        let bytes = labelled(&component, *nonce);
        Digest::of(&bytes).as_bytes()[31] % 8 == kind as u8
    };
    let nonce = (0..).filter(fits).nth(number as usize).expect("one fits");
    labelled(&component, nonce).into()
}

fn labelled(component: &[u8], nonce: u32) -> Vec<u8> {
    let mut bytes = component.to_vec();
    // A custom section: its size, the length of its name, the name.
    bytes.extend([0, 5, 4]);
    bytes.extend(format!("{nonce:04}").bytes());
    bytes
}

/// The kind of version that a run ended on, and the tokens it was given.
pub(super) fn output(run: &Run) -> (Kind, Vec<String>) {
    #[derive(Deserialize)]
    struct Output {
        kind: Kind,
        tokens: Vec<String>,
    }
    let output = run
        .output
        .as_ref()
        .unwrap_or_else(|| panic!("it has completed: {run:?}"));
    let output: Output = output.read().expect("the guest's output");
    (output.kind, output.tokens)
}
