//! Evaluating within a budget.
//!
//! Numbers are compared by value whatever their kind, as CEL says; arithmetic that overflows is an error. `&&` and `||`
//! forgive an error on one side when the other decides.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::translate::{Fold, Function, Node};
use crate::limit;

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// An operation on what it does not fit, a member that is not there.
    Error,
    /// The budget is used up: nothing forgives that.
    Exhausted,
}

/// A value, of an event or made.
#[derive(Clone, Debug)]
enum Val<'a> {
    Of(&'a Value),
    Made(Value),
}

impl Val<'_> {
    fn get(&self) -> &Value {
        match self {
            Val::Of(value) => value,
            Val::Made(value) => value,
        }
    }
}

struct Evaluation<'a> {
    event: &'a Value,
    other: Option<&'a Value>,
    locals: Vec<(&'a str, Val<'a>)>,
    budget: u64,
}

pub(super) fn holds(root: &Node, event: &Value, other: Option<&Value>) -> bool {
    let mut evaluation = Evaluation {
        event,
        other,
        locals: Vec::new(),
        budget: limit::CONDITION_COST_MAX,
    };
    matches!(evaluation.value(root), Ok(value) if *value.get() == Value::Bool(true))
}

pub(super) fn value(root: &Node, event: &Value) -> Option<Value> {
    let mut evaluation = Evaluation {
        event,
        other: None,
        locals: Vec::new(),
        budget: limit::CONDITION_COST_MAX,
    };
    evaluation.owned(root).ok()
}

/// What looking at all of a value costs, in bytes.
fn weight(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() as u64,
        Value::Array(items) => 8 + items.iter().map(|item| 64 + weight(item)).sum::<u64>(),
        Value::Object(members) => {
            8 + members
                .iter()
                .map(|(name, value)| 64 + name.len() as u64 + weight(value))
                .sum::<u64>()
        }
    }
}

impl<'a> Evaluation<'a> {
    fn spend(&mut self, cost: u64) -> Result<(), Stop> {
        self.budget = self.budget.checked_sub(cost).ok_or(Stop::Exhausted)?;
        Ok(())
    }

    /// Pays for looking at all of a value.
    fn read(&mut self, value: &Value) -> Result<(), Stop> {
        self.spend(weight(value) / 64)
    }

    fn value(&mut self, node: &'a Node) -> Result<Val<'a>, Stop> {
        self.spend(1)?;
        match node {
            Node::Literal(value) => Ok(Val::Of(value)),
            Node::Variable(name) => self.variable(name),
            Node::Field(operand, name) => {
                let operand = self.value(operand)?;
                self.member(operand, name)
            }
            Node::Has(operand, name) => match self.value(operand)?.get() {
                Value::Object(members) => Ok(Val::Made(members.contains_key(name).into())),
                _ => Err(Stop::Error),
            },
            Node::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for item in items {
                    list.push(self.owned(item)?);
                }
                Ok(Val::Made(Value::Array(list)))
            }
            Node::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let Value::String(key) = self.owned(key)? else {
                        return Err(Stop::Error);
                    };
                    map.insert(key, self.owned(value)?);
                }
                Ok(Val::Made(Value::Object(map)))
            }
            Node::Call(function, arguments) => self.call(*function, arguments),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    /// A value for keeping.
    fn owned(&mut self, node: &'a Node) -> Result<Value, Stop> {
        match self.value(node)? {
            Val::Made(value) => Ok(value),
            Val::Of(value) => {
                self.read(value)?;
                Ok(value.clone())
            }
        }
    }

    fn variable(&mut self, name: &str) -> Result<Val<'a>, Stop> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| *local == name) {
            let value = value.clone();
            if let Val::Made(made) = &value {
                self.read(made)?;
            }
            return Ok(value);
        }
        match name {
            "event" => Ok(Val::Of(self.event)),
            _ => self.other.map(Val::Of).ok_or(Stop::Error),
        }
    }

    fn member(&mut self, operand: Val<'a>, name: &str) -> Result<Val<'a>, Stop> {
        match operand {
            Val::Of(Value::Object(members)) => members.get(name).map(Val::Of).ok_or(Stop::Error),
            Val::Made(Value::Object(mut members)) => members.remove(name).map(Val::Made).ok_or(Stop::Error),
            _ => Err(Stop::Error),
        }
    }

    fn boolean(&mut self, node: &'a Node) -> Result<bool, Stop> {
        self.value(node)?.get().as_bool().ok_or(Stop::Error)
    }

    fn call(&mut self, function: Function, arguments: &'a [Node]) -> Result<Val<'a>, Stop> {
        let made = |value: bool| Ok(Val::Made(Value::Bool(value)));
        match (function, arguments) {
            (Function::And, [left, right]) => self.decide(left, right, false).and_then(made),
            (Function::Or, [left, right]) => self.decide(left, right, true).and_then(made),
            (Function::Not, [operand]) => made(!self.boolean(operand)?),
            (Function::NotStrictlyFalse, [operand]) => match self.boolean(operand) {
                Err(Stop::Exhausted) => Err(Stop::Exhausted),
                answer => made(answer != Ok(false)),
            },
            (Function::If, [condition, yes, no]) => {
                let chosen = if self.boolean(condition)? { yes } else { no };
                self.value(chosen)
            }
            (function, [operand]) => {
                let operand = self.value(operand)?;
                self.unary(function, operand.get()).map(Val::Made)
            }
            (Function::Index, [operand, index]) => {
                let (operand, index) = (self.value(operand)?, self.value(index)?);
                self.index(operand, index.get())
            }
            (function, [left, right]) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.binary(function, left.get(), right.get()).map(Val::Made)
            }
            _ => Err(Stop::Error),
        }
    }

    /// `&&` (decided by false) or `||` (decided by true).
    fn decide(&mut self, left: &'a Node, right: &'a Node, decisive: bool) -> Result<bool, Stop> {
        let left = self.boolean(left);
        if left == Ok(decisive) || left == Err(Stop::Exhausted) {
            return left;
        }
        match (left, self.boolean(right)) {
            (_, Ok(right)) if right == decisive => Ok(decisive),
            (Err(stop), Ok(_)) | (_, Err(stop)) => Err(stop),
            (Ok(_), Ok(_)) => Ok(!decisive),
        }
    }

    fn index(&mut self, operand: Val<'a>, index: &Value) -> Result<Val<'a>, Stop> {
        if let Value::String(name) = index {
            return self.member(operand, name);
        }
        let place = index
            .as_u64()
            .and_then(|place| usize::try_from(place).ok())
            .ok_or(Stop::Error)?;
        match operand {
            Val::Of(Value::Array(items)) => items.get(place).map(Val::Of).ok_or(Stop::Error),
            Val::Made(Value::Array(mut items)) if place < items.len() => {
                Ok(Val::Made(items.swap_remove(place)))
            }
            _ => Err(Stop::Error),
        }
    }

    fn unary(&mut self, function: Function, operand: &Value) -> Result<Value, Stop> {
        match (function, operand) {
            (Function::Negate, Value::Number(number)) => match number.as_i64() {
                Some(integer) => integer.checked_neg().map(Value::from).ok_or(Stop::Error),
                None => number
                    .as_f64()
                    .map(|float| Value::from(-float))
                    .ok_or(Stop::Error),
            },
            (Function::Size, Value::String(text)) => {
                self.spend(text.len() as u64 / 64)?;
                Ok(Value::from(text.chars().count()))
            }
            (Function::Size, Value::Array(items)) => Ok(Value::from(items.len())),
            (Function::Size, Value::Object(members)) => Ok(Value::from(members.len())),
            (Function::Int, Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Ok(Value::from(integer)),
                (None, Some(float)) if float.abs() < 9.2e18 => Ok(Value::from(float as i64)),
                _ => Err(Stop::Error),
            },
            (Function::Int, Value::String(text)) => {
                text.parse::<i64>().map(Value::from).map_err(|_| Stop::Error)
            }
            (Function::Double, Value::Number(number)) => number.as_f64().map(Value::from).ok_or(Stop::Error),
            (Function::Double, Value::String(text)) => {
                text.parse::<f64>().map(Value::from).map_err(|_| Stop::Error)
            }
            (Function::Text, Value::String(text)) => {
                self.read(operand)?;
                Ok(Value::from(text.as_str()))
            }
            (Function::Text, Value::Number(_) | Value::Bool(_)) => Ok(Value::from(operand.to_string())),
            _ => Err(Stop::Error),
        }
    }

    fn binary(&mut self, function: Function, left: &Value, right: &Value) -> Result<Value, Stop> {
        match function {
            Function::Equal => Ok(self.equal(left, right)?.into()),
            Function::NotEqual => Ok((!self.equal(left, right)?).into()),
            Function::Less => Ok((self.order(left, right)? == Ordering::Less).into()),
            Function::LessEqual => Ok((self.order(left, right)? != Ordering::Greater).into()),
            Function::Greater => Ok((self.order(left, right)? == Ordering::Greater).into()),
            Function::GreaterEqual => Ok((self.order(left, right)? != Ordering::Less).into()),
            Function::In => match right {
                Value::Array(items) => {
                    for item in items {
                        if self.equal(left, item)? {
                            return Ok(true.into());
                        }
                    }
                    Ok(false.into())
                }
                Value::Object(members) => {
                    let name = left.as_str().ok_or(Stop::Error)?;
                    Ok(members.contains_key(name).into())
                }
                _ => Err(Stop::Error),
            },
            Function::Contains | Function::StartsWith | Function::EndsWith => {
                let (text, part) = (
                    left.as_str().ok_or(Stop::Error)?,
                    right.as_str().ok_or(Stop::Error)?,
                );
                self.spend((text.len() + part.len()) as u64 / 64)?;
                Ok(match function {
                    Function::Contains => text.contains(part),
                    Function::StartsWith => text.starts_with(part),
                    _ => text.ends_with(part),
                }
                .into())
            }
            Function::Add => match (left, right) {
                (Value::String(a), Value::String(b)) => {
                    self.spend((a.len() + b.len()) as u64 / 64)?;
                    Ok(Value::from(format!("{a}{b}")))
                }
                (Value::Array(a), Value::Array(b)) => {
                    self.read(left)?;
                    self.read(right)?;
                    Ok(Value::Array(a.iter().chain(b).cloned().collect()))
                }
                _ => arithmetic(function, left, right),
            },
            _ => arithmetic(function, left, right),
        }
    }

    fn equal(&mut self, left: &Value, right: &Value) -> Result<bool, Stop> {
        self.spend(1)?;
        Ok(match (left, right) {
            (Value::Number(_), Value::Number(_)) => order_numbers(left, right) == Some(Ordering::Equal),
            (Value::String(a), Value::String(b)) => {
                self.spend(a.len().min(b.len()) as u64 / 64)?;
                a == b
            }
            (Value::Array(a), Value::Array(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b) {
                    if !self.equal(a, b)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Object(a), Value::Object(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (name, a) in a {
                    match b.get(name) {
                        Some(b) if self.equal(a, b)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ => left == right,
        })
    }

    fn order(&mut self, left: &Value, right: &Value) -> Result<Ordering, Stop> {
        match (left, right) {
            (Value::Number(_), Value::Number(_)) => order_numbers(left, right).ok_or(Stop::Error),
            (Value::String(a), Value::String(b)) => {
                self.spend(a.len().min(b.len()) as u64 / 64)?;
                Ok(a.cmp(b))
            }
            (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
            _ => Err(Stop::Error),
        }
    }

    fn fold(&mut self, fold: &'a Fold) -> Result<Val<'a>, Stop> {
        let range = self.value(&fold.range)?;
        let mut accumulator = self.value(&fold.initial)?;
        let items: Vec<Val<'a>> = match range {
            Val::Of(Value::Array(items)) => {
                self.spend(items.len() as u64)?;
                items.iter().map(Val::Of).collect()
            }
            Val::Made(Value::Array(items)) => items.into_iter().map(Val::Made).collect(),
            // The items of a map are its keys.
            other => match other.get() {
                Value::Object(members) => {
                    self.spend(members.len() as u64)?;
                    members
                        .keys()
                        .map(|name| Val::Made(Value::from(name.as_str())))
                        .collect()
                }
                _ => return Err(Stop::Error),
            },
        };
        let height = self.locals.len();
        for item in items {
            self.locals.push((&fold.accumulator, accumulator));
            self.locals.push((&fold.item, item));
            let stepped = match self.boolean(&fold.goes_on) {
                Ok(true) => self.value(&fold.step).map(Some),
                Ok(false) => Ok(None),
                Err(stop) => Err(stop),
            };
            self.locals.truncate(height + 1);
            let before = self.locals.pop();
            match (stepped, before) {
                (Ok(Some(next)), _) => accumulator = next,
                (Ok(None), Some((_, before))) => {
                    accumulator = before;
                    break;
                }
                (Ok(None), None) => return Err(Stop::Error),
                (Err(stop), _) => return Err(stop),
            }
        }
        self.locals.push((&fold.accumulator, accumulator));
        let result = self.value(&fold.result);
        self.locals.truncate(height);
        result
    }
}

/// Compares numbers by their value. None for what has no order.
fn order_numbers(left: &Value, right: &Value) -> Option<Ordering> {
    if let (Some(a), Some(b)) = (left.as_i64(), right.as_i64()) {
        return Some(a.cmp(&b));
    }
    if let (Some(a), Some(b)) = (left.as_u64(), right.as_u64()) {
        return Some(a.cmp(&b));
    }
    left.as_f64()?.partial_cmp(&right.as_f64()?)
}

fn arithmetic(function: Function, left: &Value, right: &Value) -> Result<Value, Stop> {
    if let (Some(a), Some(b)) = (left.as_i64(), right.as_i64()) {
        let result = match function {
            Function::Add => a.checked_add(b),
            Function::Subtract => a.checked_sub(b),
            Function::Multiply => a.checked_mul(b),
            Function::Divide => a.checked_div(b),
            Function::Remainder => a.checked_rem(b),
            _ => None,
        };
        return result.map(Value::from).ok_or(Stop::Error);
    }
    let (Some(a), Some(b)) = (left.as_f64(), right.as_f64()) else {
        return Err(Stop::Error);
    };
    match function {
        Function::Add => Ok(Value::from(a + b)),
        Function::Subtract => Ok(Value::from(a - b)),
        Function::Multiply => Ok(Value::from(a * b)),
        Function::Divide => Ok(Value::from(a / b)),
        _ => Err(Stop::Error),
    }
}
