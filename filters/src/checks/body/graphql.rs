//! Which operation of a GraphQL API a request is, and whether a rule allows it.
//!
//! All of them are a `POST` to one path, so a read and a deletion look alike from outside. (GraphQL, October
//! 2021; GraphQL over HTTP.)

mod request;

use http::header;
use smallvec::SmallVec;

use crate::{
    Denial, Head, Label,
    checks::{
        access::{self, Resources},
        workspaces::Workspace,
    },
    identity::Caller,
};

pub use request::{Argument, Field, Kind, Operation};

/// The GraphQL rules of a route, indexed by field.
#[derive(Debug)]
pub struct Graphql {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    written: config::GraphqlRule,
    /// The kinds of resources, with the argument that names one.
    resources: Vec<(Label, String)>,
}

impl Graphql {
    /// From what the operator wrote.
    pub fn new(written: &[config::GraphqlRule]) -> Self {
        let rule = |rule: &config::GraphqlRule| Rule {
            written: rule.clone(),
            resources: rule.resources.iter().map(|(k, a)| (k.into(), a.clone())).collect(),
        };
        Self { rules: written.iter().map(rule).collect() }
    }

    /// The arguments of a root field that its rules read, each once.
    pub(crate) fn arguments_of(&self, kind: Kind, field: &str) -> SmallVec<[&str; 4]> {
        let mut all = SmallVec::new();
        for rule in self.rules.iter().filter(|rule| rule.has(kind, field)) {
            for (_, argument) in &rule.resources {
                if !all.contains(&argument.as_str()) {
                    all.push(argument.as_str());
                }
            }
        }
        all
    }

    /// Permits an operation if a rule allows this caller each of its root fields.
    ///
    /// # Errors
    /// [`Denial::GraphqlRefused`] for a field that no rule has, else why the last rule with it refuses:
    /// [`Denial::AccessDenied`] or [`Denial::ResourceRefused`].
    pub(crate) fn permit(
        &self,
        operation: &Operation,
        route: &Label,
        caller: &Caller,
        workspace: Option<&Workspace>,
    ) -> Result<(), Denial> {
        operation.fields.iter().filter(|field| &*field.name != "__typename").try_for_each(|field| {
            self.permit_field(operation.kind, field, route, caller, workspace)
        })
    }

    fn permit_field(
        &self,
        kind: Kind,
        field: &Field,
        route: &Label,
        caller: &Caller,
        workspace: Option<&Workspace>,
    ) -> Result<(), Denial> {
        let mut refused =
            Denial::GraphqlRefused { operation: kind.name(), field: Label::lossy(&field.name) };
        for rule in self.rules.iter().filter(|rule| rule.has(kind, &field.name)) {
            match rule.permit(field, route, caller, workspace) {
                Ok(()) => return Ok(()),
                Err(denial) => refused = denial,
            }
        }
        Err(refused)
    }
}

impl Rule {
    fn has(&self, kind: Kind, name: &str) -> bool {
        let fields = match kind {
            Kind::Query => &self.written.query,
            Kind::Mutation => &self.written.mutation,
        };
        fields.iter().any(|field| **field == *name)
    }

    fn permit(
        &self,
        field: &Field,
        route: &Label,
        caller: &Caller,
        workspace: Option<&Workspace>,
    ) -> Result<(), Denial> {
        if !access::fits(&self.written.access, caller) {
            return Err(access::refusal(&self.written.access, caller, route));
        }
        for (kind, argument) in &self.resources {
            let named = field.text(argument);
            Resources::of(workspace).permit(kind, named.as_deref())?;
        }
        Ok(())
    }
}

impl Operation {
    /// Reads the one operation of a request.
    ///
    /// # Errors
    /// [`Denial::GraphqlMalformed`] unless there is exactly one, with one meaning.
    pub fn of(head: &Head<'_>, body: &[u8]) -> Result<Self, Denial> {
        let malformed = |why| Denial::GraphqlMalformed { why };
        // Some servers read the operation from the query, whatever the body says.
        if head.query().is_some_and(|query| !query.is_empty()) {
            return Err(malformed("it has parameters in its URL"));
        }
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(malformed("it is compressed"));
        }
        let mut types = head.headers.get_all(header::CONTENT_TYPE).iter();
        // A text can be both JSON and a form.
        match (types.next().and_then(|kind| kind.to_str().ok()), types.next()) {
            (Some(kind), None) if is_json(kind) => {}
            _ => return Err(malformed("its `Content-Type` is not `application/json`")),
        }
        request::read(body).map_err(malformed)
    }

    /// Its class, whatever the route's.
    pub fn class(&self) -> config::Class {
        match self.kind {
            Kind::Query => config::Class::Read,
            Kind::Mutation => config::Class::Action,
        }
    }
}

/// JSON in UTF-8: in another encoding the same bytes may say something else.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let is = |text: &str, wanted: &str| text.eq_ignore_ascii_case(wanted);
    parts
        .next()
        .is_some_and(|kind| is(kind, "application/json") || is(kind, "application/graphql+json"))
        && parts.all(|part| is(part, "charset=utf-8") || is(part, "charset=\"utf-8\""))
}

/// `mutation runTrigger`: for records.
impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.name())?;
        for (nth, field) in self.fields.iter().enumerate() {
            write!(f, "{}{}", if nth == 0 { " " } else { "," }, field.name)?;
        }
        Ok(())
    }
}
