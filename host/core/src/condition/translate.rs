//! From the parser's tree to the tree of what is supported.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;

use super::{Invalid, Scope};
use crate::limit;

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Literal(Value),
    Variable(String),
    /// A member of a value.
    Field(Box<Node>, String),
    /// Whether a value has a member.
    Has(Box<Node>, String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Call(Function, Vec<Node>),
    Fold(Box<Fold>),
}

/// What `all`, `exists`, `exists_one`, `map` and `filter` stand for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fold {
    pub(super) range: Node,
    pub(super) item: String,
    pub(super) accumulator: String,
    pub(super) initial: Node,
    pub(super) goes_on: Node,
    pub(super) step: Node,
    pub(super) result: Node,
}

/// What can be called, by operator or by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    /// Of the parser's own making, in folds.
    NotStrictlyFalse,
    If,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    Index,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Negate,
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Int,
    Double,
    Text,
}

impl Function {
    /// By its name in the parser's tree and the number of its arguments, the target counted.
    fn find(name: &str, arguments: usize) -> Option<Function> {
        Some(match (name, arguments) {
            (operators::LOGICAL_AND, 2) => Function::And,
            (operators::LOGICAL_OR, 2) => Function::Or,
            (operators::LOGICAL_NOT, 1) => Function::Not,
            (operators::NOT_STRICTLY_FALSE, 1) => Function::NotStrictlyFalse,
            (operators::CONDITIONAL, 3) => Function::If,
            (operators::EQUALS, 2) => Function::Equal,
            (operators::NOT_EQUALS, 2) => Function::NotEqual,
            (operators::LESS, 2) => Function::Less,
            (operators::LESS_EQUALS, 2) => Function::LessEqual,
            (operators::GREATER, 2) => Function::Greater,
            (operators::GREATER_EQUALS, 2) => Function::GreaterEqual,
            (operators::IN, 2) => Function::In,
            (operators::INDEX, 2) => Function::Index,
            (operators::ADD, 2) => Function::Add,
            (operators::SUBSTRACT, 2) => Function::Subtract,
            (operators::MULTIPLY, 2) => Function::Multiply,
            (operators::DIVIDE, 2) => Function::Divide,
            (operators::MODULO, 2) => Function::Remainder,
            (operators::NEGATE, 1) => Function::Negate,
            ("size", 1) => Function::Size,
            ("contains", 2) => Function::Contains,
            ("startsWith", 2) => Function::StartsWith,
            ("endsWith", 2) => Function::EndsWith,
            ("int", 1) => Function::Int,
            ("double", 1) => Function::Double,
            ("string", 1) => Function::Text,
            _ => return None,
        })
    }
}

/// Refuses what would take the parser deep, before it is asked.
pub(super) fn check_nesting(source: &str) -> Result<(), Invalid> {
    let (mut depth, mut conditionals, mut signs) = (0u16, 0u16, 0u16);
    let mut quote = None;
    let mut escaped = false;
    for (place, character) in source.char_indices() {
        if let Some(open) = quote {
            // A raw or triple-quoted text may end elsewhere than this thinks: then more is counted, or less than there
            // is. The parser has its own limit for that.
            if escaped {
                escaped = false;
            } else if character == '\\' {
                escaped = true;
            } else if character == open {
                quote = None;
            }
            continue;
        }
        match character {
            '"' | '\'' => quote = Some(character),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '?' => conditionals += 1,
            _ => {}
        }
        match character {
            '!' | '-' => signs += 1,
            _ if character.is_whitespace() => {}
            _ => signs = 0,
        }
        if depth.max(conditionals).max(signs) > limit::CONDITION_NESTING_MAX {
            return Err(Invalid(format!(
                "the condition is nested more than {} levels deep at {}",
                limit::CONDITION_NESTING_MAX,
                place_of(source, place)
            )));
        }
    }
    Ok(())
}

/// A place for a person.
fn place_of(source: &str, offset: usize) -> String {
    let before = &source[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

pub(super) fn translate(source: &str, scope: Scope, parsed: &IdedExpr) -> Result<Node, Invalid> {
    let mut translator = Translator {
        source,
        scope,
        locals: Vec::new(),
    };
    translator.node(parsed, 0)
}

struct Translator<'a> {
    source: &'a str,
    scope: Scope,
    /// The variables of the folds around.
    locals: Vec<String>,
}

impl Translator<'_> {
    fn node(&mut self, parsed: &IdedExpr, depth: usize) -> Result<Node, Invalid> {
        if depth > limit::CONDITION_DEPTH_MAX {
            return Err(Invalid(format!(
                "the condition has more than {} operators or members in one chain: put parts of it in parentheses, or \
                 write less",
                limit::CONDITION_DEPTH_MAX
            )));
        }
        let below = depth + 1;
        Ok(match &parsed.expr {
            Expr::Literal(literal) => Node::Literal(self.literal(literal)?),
            Expr::Ident(name) => self.variable(name)?,
            Expr::Select(select) => {
                let operand = Box::new(self.node(&select.operand, below)?);
                match select.test {
                    true => Node::Has(operand, select.field.clone()),
                    false => Node::Field(operand, select.field.clone()),
                }
            }
            Expr::List(list) if list.optional_indices.is_empty() => {
                Node::List(self.nodes(list.elements.iter(), below)?)
            }
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) if !entry.optional => {
                            entries.push((self.node(&entry.key, below)?, self.node(&entry.value, below)?));
                        }
                        _ => return Err(self.unsupported("an optional entry", "?")),
                    }
                }
                Node::Map(entries)
            }
            Expr::Call(call) => {
                let arguments = call.args.len() + usize::from(call.target.is_some());
                let Some(function) = Function::find(&call.func_name, arguments) else {
                    let name = call.func_name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
                    return Err(self.unsupported(&format!("the function {name}"), name));
                };
                Node::Call(
                    function,
                    self.nodes(call.target.as_deref().into_iter().chain(&call.args), below)?,
                )
            }
            Expr::Comprehension(fold) if fold.iter_var2.is_none() => {
                let range = self.node(&fold.iter_range, below)?;
                let initial = self.node(&fold.accu_init, below)?;
                self.locals.push(fold.accu_var.clone());
                self.locals.push(fold.iter_var.clone());
                let goes_on = self.node(&fold.loop_cond, below)?;
                let step = self.node(&fold.loop_step, below)?;
                self.locals.pop();
                let result = self.node(&fold.result, below)?;
                self.locals.pop();
                Node::Fold(Box::new(Fold {
                    range,
                    item: fold.iter_var.clone(),
                    accumulator: fold.accu_var.clone(),
                    initial,
                    goes_on,
                    step,
                    result,
                }))
            }
            Expr::Comprehension(_) => return Err(self.unsupported("a macro with two variables", ",")),
            Expr::List(_) => return Err(self.unsupported("an optional element", "?")),
            Expr::Struct(message) => return Err(self.unsupported("a message", &message.type_name)),
            Expr::Unspecified => return Err(self.unsupported("an empty expression", "")),
        })
    }

    fn nodes<'e>(
        &mut self,
        parsed: impl Iterator<Item = &'e IdedExpr>,
        depth: usize,
    ) -> Result<Vec<Node>, Invalid> {
        parsed.map(|parsed| self.node(parsed, depth)).collect()
    }

    fn literal(&self, literal: &LiteralValue) -> Result<Value, Invalid> {
        Ok(match literal {
            LiteralValue::Boolean(value) => Value::from(*value.inner()),
            LiteralValue::Int(value) => Value::from(*value.inner()),
            LiteralValue::UInt(value) => Value::from(*value.inner()),
            LiteralValue::Double(value) => Value::from(*value.inner()),
            LiteralValue::String(value) => Value::from(value.inner()),
            LiteralValue::Null => Value::Null,
            LiteralValue::Bytes(_) => return Err(self.unsupported("a text of bytes", "b")),
        })
    }

    fn variable(&self, name: &str) -> Result<Node, Invalid> {
        let known = match name {
            "event" => true,
            "async" => self.scope == Scope::Wait,
            local => self.locals.iter().any(|known| known == local),
        };
        if known {
            return Ok(Node::Variable(name.to_owned()));
        }
        let there_are = match self.scope {
            Scope::Trigger => "event",
            Scope::Wait => "event and async",
        };
        Err(self.unsupported(&format!("the name {name} (there is {there_are})"), name))
    }

    fn unsupported(&self, what: &str, word: &str) -> Invalid {
        // The parser tells no places of what it accepts; the word's first stands for it.
        let place = self.source.find(word).unwrap_or_default();
        Invalid(format!(
            "the condition uses what is not supported at {}: {what}",
            place_of(self.source, place)
        ))
    }
}
