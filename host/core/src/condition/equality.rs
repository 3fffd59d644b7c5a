//! The equality that a condition asks for, if it is one that an event can be looked up by.

use serde_json::Value;

use super::translate::{Function, Node};

/// A condition that holds only when a field of `event` equals a field of `async`: the paths of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equality {
    /// The path of the field of `event`: `data.order_id`.
    pub event: String,
    /// The path of the field of `async`.
    pub other: String,
}

/// The first such equality of those that must all hold.
pub(super) fn of(node: &Node) -> Option<Equality> {
    match node {
        Node::Call(Function::And, sides) => sides.iter().find_map(of),
        Node::Call(Function::Equal, sides) => match sides.as_slice() {
            [left, right] => match (path(left)?, path(right)?) {
                (("event", event), ("async", other)) | (("async", other), ("event", event)) => {
                    Some(Equality { event, other })
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// The variable that a field is of, and the field's path.
fn path(node: &Node) -> Option<(&str, String)> {
    let (of, member) = match node {
        Node::Field(of, member) => (&**of, member.as_str()),
        Node::Call(Function::Index, sides) => match sides.as_slice() {
            [of, Node::Literal(Value::String(member))] => (of, member.as_str()),
            _ => return None,
        },
        _ => return None,
    };
    // A path is read at its dots.
    if member.is_empty() || member.contains('.') {
        return None;
    }
    match of {
        Node::Variable(name) => Some((name, member.to_owned())),
        of => {
            let (name, path) = path(of)?;
            Some((name, format!("{path}.{member}")))
        }
    }
}
