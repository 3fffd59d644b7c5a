//! Which types of Postgres have a JSON form here. All others do through a cast to text.

use sqlx::TypeInfo as _;
use sqlx::postgres::{PgTypeInfo, PgTypeKind};

/// What a type's values are in Postgres' binary format, and so in JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    /// A number of 32 bits without a sign.
    Oid,
    Float4,
    Float8,
    Numeric,
    /// Texts of all kinds; enums too.
    Text,
    Json,
    Jsonb,
    Bytea,
    Uuid,
    Timestamptz,
    Timestamp,
    Date,
    Time,
    /// What a function returns that returns nothing.
    Void,
    /// Of elements, whose type has this number.
    Array(Box<Kind>, u32),
}

impl Kind {
    /// None: the type has no JSON form here.
    pub(super) fn of(info: &PgTypeInfo) -> Option<Kind> {
        match info.kind() {
            PgTypeKind::Array(element) => {
                let kind = Kind::of(element)?;
                return Some(Kind::Array(Box::new(kind), element.oid()?.0));
            }
            PgTypeKind::Enum(_) => return Some(Kind::Text),
            PgTypeKind::Domain(base) => return Kind::of(base),
            PgTypeKind::Simple | PgTypeKind::Pseudo => {}
            PgTypeKind::Composite(_) | PgTypeKind::Range(_) => return None,
        }
        // The numbers of the types that are built in are the same in every Postgres.
        Some(match info.oid()?.0 {
            16 => Kind::Bool,
            17 => Kind::Bytea,
            // "char", name, text, xml, unknown, bpchar, varchar.
            18 | 19 | 25 | 142 | 705 | 1042 | 1043 => Kind::Text,
            20 => Kind::Int8,
            21 => Kind::Int2,
            23 => Kind::Int4,
            26 => Kind::Oid,
            114 => Kind::Json,
            700 => Kind::Float4,
            701 => Kind::Float8,
            1082 => Kind::Date,
            1083 => Kind::Time,
            1114 => Kind::Timestamp,
            1184 => Kind::Timestamptz,
            1700 => Kind::Numeric,
            2278 => Kind::Void,
            2950 => Kind::Uuid,
            3802 => Kind::Jsonb,
            _ if info.name().trim_matches('"').eq_ignore_ascii_case("citext") => Kind::Text,
            _ => return None,
        })
    }
}
