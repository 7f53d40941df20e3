// Makes the parts of GitHub's own descriptions that the simulator speaks, from the whole
// of them:
//
//   npm install @octokit/openapi@23.0.2 @octokit/graphql-schema@15.26.1
//   node prune.mjs <folder with node_modules> openapi | gzip -9n > openapi.json.gz
//   node prune.mjs <folder with node_modules> graphql > ../schema.graphql
//
// Both packages are GitHub's descriptions as Octokit publishes them (repositories
// octokit/openapi and octokit/graphql-schema, MIT licence). Descriptions and examples go.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [, , folder, what] = process.argv
const require = createRequire(join(folder, 'x.js'))

const routes = readFileSync(new URL('routes.txt', import.meta.url), 'utf8').trim().split('\n')

function openapi() {
  const spec = JSON.parse(readFileSync(join(folder, 'node_modules/@octokit/openapi/generated/api.github.com.json'), 'utf8'))
  const wanted = new Set()
  const kept = ['type', 'enum', 'nullable', 'required', 'additionalProperties', 'format', 'pattern', 'maxLength']
  const prune = (s) => {
    if (s === null || typeof s !== 'object') return s
    if (s.$ref) {
      wanted.add(s.$ref.split('/').pop())
      return { $ref: s.$ref }
    }
    const out = {}
    for (const k of kept) if (s[k] !== undefined) out[k] = typeof s[k] === 'object' && !Array.isArray(s[k]) ? prune(s[k]) : s[k]
    for (const k of ['anyOf', 'oneOf', 'allOf']) if (s[k]) out[k] = s[k].map(prune)
    if (s.items) out.items = prune(s.items)
    if (s.properties) out.properties = Object.fromEntries(Object.entries(s.properties).map(([k, v]) => [k, prune(v)]))
    return out
  }
  const paths = {}
  for (const route of routes) {
    const [method, path] = route.split(' ')
    // Variables have other names there.
    const shape = (p) => p.replace(/\{[^}]*\}/g, '{}')
    const found = Object.keys(spec.paths).find((p) => shape(p) === shape(path))
    const op = found && spec.paths[found][method.toLowerCase()]
    if (!op) {
      process.stderr.write('not described: ' + route + '\n')
      continue
    }
    const parameters = (op.parameters ?? []).map((p) => (p.$ref ? spec.components.parameters[p.$ref.split('/').pop()] : p)).filter((p) => p.in === 'query').map((p) => p.name)
    const answers = {}
    for (const [status, r] of Object.entries(op.responses)) {
      const body = (r.$ref ? spec.components.responses[r.$ref.split('/').pop()] : r).content?.['application/json']?.schema
      answers[status] = body ? prune(body) : null
    }
    paths[route] = { parameters, answers }
  }
  const schemas = {}
  for (let more = true; more; ) {
    more = false
    for (const name of wanted) if (!schemas[name]) (schemas[name] = prune(spec.components.schemas[name])), (more = true)
  }
  process.stdout.write(JSON.stringify({ version: spec.info.version, paths, schemas }) + '\n')
}

const connection = 'nodes edges pageInfo totalCount'
const types = {
  Query: 'viewer repository organization user node nodes rateLimit',
  Mutation: 'deleteIssue transferIssue addComment',
  Node: 'id', Actor: 'avatarUrl login resourcePath url', RepositoryOwner: 'avatarUrl id login repositories resourcePath url', GitObject: 'commitUrl id oid',
  RateLimit: 'cost limit nodeCount remaining resetAt used', PageInfo: 'endCursor hasNextPage hasPreviousPage startCursor',
  User: 'avatarUrl company createdAt databaseId email id location login name repositories resourcePath url',
  Organization: 'avatarUrl createdAt databaseId id login name repositories resourcePath url',
  Repository: `createdAt databaseId defaultBranchRef description diskUsage forkCount hasIssuesEnabled homepageUrl id isArchived isDisabled isEmpty isFork
    isPrivate issue issues labels milestones name nameWithOwner owner pullRequest pullRequests pushedAt releases resourcePath stargazerCount updatedAt url visibility`,
  Issue: `activeLockReason assignees author authorAssociation body bodyText closed closedAt comments createdAt databaseId editor fullDatabaseId id labels
    lastEditedAt locked milestone number publishedAt repository resourcePath state stateReason title updatedAt url`,
  PullRequest: `activeLockReason additions assignees author authorAssociation autoMergeRequest baseRefName baseRefOid body bodyText changedFiles closed
    closedAt comments createdAt createdViaEmail databaseId deletions editor fullDatabaseId headRefName headRefOid id isCrossRepository isDraft labels
    lastEditedAt locked maintainerCanModify mergeCommit mergeable merged mergedAt mergedBy milestone number permalink publishedAt repository resourcePath
    reviewDecision reviews state title totalCommentsCount updatedAt url`,
  PullRequestReview: 'author authorAssociation body bodyText comments commit createdAt databaseId fullDatabaseId id lastEditedAt pullRequest repository state submittedAt updatedAt url',
  PullRequestReviewComment: 'author authorAssociation body createdAt databaseId diffHunk fullDatabaseId id line path pullRequest pullRequestReview replyTo updatedAt url',
  IssueComment: 'author authorAssociation body createdAt databaseId fullDatabaseId id issue pullRequest repository updatedAt url',
  Label: 'color createdAt description id isDefault name repository updatedAt url',
  Milestone: 'closed closedAt createdAt creator description dueOn id number repository state title updatedAt url',
  Release: 'author createdAt databaseId description id isDraft isPrerelease name publishedAt repository tagName updatedAt url',
  Commit: 'additions author authoredDate commitUrl committedDate deletions history id message oid repository url',
  GitActor: 'date email name user', Ref: 'id name prefix target', AutoMergeRequest: 'enabledAt',
  DeleteIssuePayload: 'clientMutationId repository', TransferIssuePayload: 'clientMutationId issue', AddCommentPayload: 'clientMutationId subject',
}
for (const of of ['Repository', 'Issue', 'PullRequest', 'PullRequestReview', 'PullRequestReviewComment', 'IssueComment', 'Label', 'Milestone', 'Release', 'User', 'CommitHistory']) {
  types[of + 'Connection'] = connection
  types[(of === 'CommitHistory' ? 'Commit' : of) + 'Edge'] = 'cursor node'
}
const inputs = { IssueFilters: 'since states labels' }
const paging = ['first', 'last', 'before', 'after', 'orderBy']
const args = { issues: ['states', 'labels', 'filterBy'], pullRequests: ['states', 'labels', 'baseRefName', 'headRefName'], reviews: ['states'], milestones: ['states'] }

function graphql() {
  const g = require('graphql')
  const schema = g.buildSchema(readFileSync(join(folder, 'node_modules/@octokit/graphql-schema/schema.graphql'), 'utf8'), { assumeValidSDL: true })
  const referenced = new Set()
  const ref = (t) => (referenced.add(g.getNamedType(t).name), String(t))
  const out = []
  const arg = (a) => a.name + ': ' + ref(a.type) + (a.defaultValue === undefined ? '' : ' = ' + g.print(g.astFromValue(a.defaultValue, a.type)))
  for (const [name, list] of Object.entries(types)) {
    const t = schema.getType(name)
    if (!t) throw new Error('no type ' + name)
    const lines = list.split(/\s+/).map((f) => {
      const def = t.getFields()[f]
      if (!def) throw new Error(`no field ${name}.${f}`)
      const isConnection = g.getNamedType(def.type).name.endsWith('Connection')
      const given = def.args.filter((a) => !isConnection || paging.includes(a.name) || (args[f] ?? []).includes(a.name)).map(arg)
      return `  ${f}${given.length ? `(${given.join(', ')})` : ''}: ${ref(def.type)}`
    })
    const above = t.getInterfaces().map((i) => i.name).filter((i) => types[i])
    out.push(`${g.isInterfaceType(t) ? 'interface' : 'type'} ${name}${above.length ? ' implements ' + above.join(' & ') : ''} {\n${lines.join('\n')}\n}`)
  }
  for (const name of referenced) {
    const t = schema.getType(name)
    if (types[name]) continue
    if (g.isEnumType(t)) out.push(`enum ${name} {\n  ${t.getValues().map((v) => v.name).join('\n  ')}\n}`)
    else if (g.isInputObjectType(t)) {
      const fields = Object.values(t.getFields()).filter((f) => !inputs[name] || inputs[name].split(' ').includes(f.name))
      out.push(`input ${name} {\n${fields.map((f) => '  ' + arg(f)).join('\n')}\n}`)
    } else if (g.isScalarType(t)) g.isSpecifiedScalarType(t) || out.push('scalar ' + name)
    else throw new Error(`${name} is used, but not among the types`)
  }
  console.log(`# The part of GitHub's public GraphQL schema that the simulator speaks; made by testdata/prune.mjs.\n\n${out.join('\n\n')}`)
}

what === 'graphql' ? graphql() : openapi()
