// A tour of the simulator with GitHub's own client for Node:
//
//   npm install octokit@5.0.5 @octokit/graphql-schema@15.26.1
//   node tour.mjs http://127.0.0.1:12111
//
// GITHUB_SDK is the folder with node_modules. It fails at the first thing that the client
// does not take for GitHub.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const sdk = process.env.GITHUB_SDK ?? process.cwd()
const { Octokit, App } = await import(pathToFileURL(join(sdk, 'node_modules/octokit/dist-bundle/index.js')))
const base = process.argv[2]
const quiet = { debug() {}, info() {}, warn() {}, error() {} }
// The client waits seconds between writes, and asks again what a refusal will not change.
const Here = Octokit.defaults({ baseUrl: base, log: quiet, throttle: { enabled: false }, retry: { enabled: false } })
const Patient = Octokit.defaults({ baseUrl: base, log: quiet, throttle: { onRateLimit: () => false, onSecondaryRateLimit: (_, __, ___, tries) => tries < 2 } })
const github = new Here({ auth: 'ghp_0123456789abcdef' })
const control = async (path, body) => (await fetch(base + '/_sandbox/' + path, { method: 'POST', body: JSON.stringify(body) })).json()
const truth = async (collection) => (await (await fetch(base + '/_sandbox/state/' + collection)).text()).trim().split('\n').map((l) => JSON.parse(l))
const caught = async (promise) => {
  try {
    await promise
  } catch (e) {
    return e
  }
  assert.fail('should have failed')
}
const sorted = (list) => list.map(String).sort()
let where // of the first repository

const stages = {
  async 'signs in'() {
    const { data, headers } = await github.rest.users.getAuthenticated()
    assert.equal(data.type, 'User')
    assert.ok(Number(headers['x-ratelimit-limit']) > 0)
    assert.equal((await caught(new Here({ auth: 'nonsense' }).rest.users.getAuthenticated())).status, 401)
    const anonymous = new Here()
    assert.ok((await anonymous.paginate(anonymous.rest.repos.listForOrg, { org: 'acme' })).every((r) => !r.private))
  },
  async 'paging brings every issue once'() {
    const repos = await github.paginate(github.rest.repos.listForOrg, { org: 'acme', per_page: 2 })
    assert.deepEqual(sorted(repos.map((r) => r.id)), sorted((await truth('repository')).map((r) => r.id)))
    where = { owner: 'acme', repo: repos[0].name }
    const issues = []
    for (const r of repos) issues.push(...(await github.paginate(github.rest.issues.listForRepo, { owner: 'acme', repo: r.name, state: 'all', per_page: 7 })))
    assert.deepEqual(sorted(issues.filter((i) => !i.pull_request).map((i) => i.id)), sorted((await truth('issue')).map((i) => i.id)))
    const pulls = await github.paginate(github.rest.pulls.list, { ...where, state: 'all', sort: 'updated', direction: 'desc', per_page: 5 })
    assert.ok(pulls.every((p, i) => i === 0 || p.updated_at <= pulls[i - 1].updated_at))
  },
  async 'an issue is opened, discussed, sorted, locked and closed'() {
    const { data: made } = await github.rest.issues.create({ ...where, title: 'The clock is behind', body: 'By **a lot**', labels: ['bug', 'a new one'] })
    assert.deepEqual(made.labels.map((l) => l.name), ['bug', 'a new one'])
    const at = { ...where, issue_number: made.number }
    const { data: comment } = await github.rest.issues.createComment({ ...at, body: 'Indeed' })
    assert.equal((await github.rest.issues.updateComment({ ...where, comment_id: comment.id, body: 'Not any more' })).data.body, 'Not any more')
    assert.equal((await github.rest.issues.get(at)).data.comments, 1)
    await github.rest.issues.deleteComment({ ...where, comment_id: comment.id })
    assert.equal((await caught(github.rest.issues.getComment({ ...where, comment_id: comment.id }))).status, 404)
    await github.rest.issues.addLabels({ ...at, labels: ['question'] })
    await github.rest.issues.removeLabel({ ...at, name: 'a new one' })
    const { data: user } = await github.rest.users.getAuthenticated()
    await github.rest.issues.addAssignees({ ...at, assignees: [user.login] })
    await github.rest.issues.lock({ ...at, lock_reason: 'resolved' })
    const { data: closed } = await github.rest.issues.update({ ...at, state: 'closed', state_reason: 'not_planned' })
    assert.deepEqual([closed.state, closed.state_reason, closed.locked, closed.labels.map((l) => l.name), closed.assignees.length], ['closed', 'not_planned', true, ['bug', 'question'], 1])
    const since = await github.rest.issues.listForRepo({ ...where, state: 'all', since: closed.updated_at })
    assert.ok(since.data.some((i) => i.id === made.id) && since.data.every((i) => i.updated_at >= closed.updated_at))
  },
  async 'a pull request is opened, reviewed and merged'() {
    const { data: pull } = await github.rest.pulls.create({ ...where, title: 'Mend the clock', head: 'mend-the-clock', base: 'main', body: 'tick' })
    assert.deepEqual([pull.merged, pull.state, pull.commits], [false, 'open', 1])
    const at = { ...where, pull_number: pull.number }
    const { data: review } = await github.rest.pulls.createReview({ ...at, event: 'COMMENT', body: 'Nearly', comments: [{ path: 'clock.go', line: 7, body: 'here' }] })
    assert.equal(review.state, 'COMMENTED')
    assert.equal((await caught(github.rest.pulls.createReview({ ...at, event: 'APPROVE' }))).status, 422)
    const { data: lines } = await github.rest.pulls.listReviewComments(at)
    assert.deepEqual(lines.map((l) => [l.path, l.pull_request_review_id]), [['clock.go', review.id]])
    assert.equal((await caught(github.rest.pulls.checkIfMerged(at))).status, 404)
    const { data: merged } = await github.rest.pulls.merge({ ...at, merge_method: 'squash' })
    assert.equal(merged.merged, true)
    assert.equal((await github.rest.repos.listCommits({ ...where, per_page: 1 })).data[0].sha, merged.sha)
    assert.equal((await caught(github.rest.pulls.merge(at))).status, 405)
    assert.equal((await github.rest.pulls.get(at)).data.merged, true)
  },
  async 'labels, milestones and releases'() {
    await github.rest.issues.createLabel({ ...where, name: 'urgent', color: 'FF0000' })
    assert.equal((await caught(github.rest.issues.createLabel({ ...where, name: 'urgent', color: 'ff0000' }))).response.data.errors[0].code, 'already_exists')
    assert.equal((await caught(github.rest.issues.createLabel({ ...where, name: 'x', color: 'invalid' }))).response.data.errors[0].field, 'color')
    assert.equal((await github.rest.issues.updateLabel({ ...where, name: 'urgent', new_name: 'not urgent' })).data.name, 'not urgent')
    await github.rest.issues.deleteLabel({ ...where, name: 'not urgent' })
    const { data: m } = await github.rest.issues.createMilestone({ ...where, title: 'One' })
    assert.equal((await github.rest.issues.updateMilestone({ ...where, milestone_number: m.number, state: 'closed' })).data.state, 'closed')
    await github.rest.issues.deleteMilestone({ ...where, milestone_number: m.number })
    const { data: r } = await github.rest.repos.createRelease({ ...where, tag_name: 'v99.0.0', draft: true })
    assert.equal(r.published_at, null)
    assert.ok((await github.rest.repos.updateRelease({ ...where, release_id: r.id, draft: false })).data.published_at)
    assert.equal((await github.rest.repos.getReleaseByTag({ ...where, tag: 'v99.0.0' })).data.id, r.id)
    await github.rest.repos.deleteRelease({ ...where, release_id: r.id })
  },
  async 'a repository is made, renamed, transferred and deleted'() {
    const { data: made } = await github.rest.repos.createInOrg({ org: 'acme', name: 'tour', private: true, auto_init: true })
    await github.rest.repos.update({ owner: 'acme', repo: 'tour', name: 'tour-renamed' })
    const { data: found, url } = await github.rest.repos.get({ owner: 'acme', repo: 'tour' })
    assert.deepEqual([found.id, found.name, url.endsWith('/repositories/' + made.id)], [made.id, 'tour-renamed', true])
    const { data: user } = await github.rest.users.getAuthenticated()
    await github.rest.repos.transfer({ owner: 'acme', repo: 'tour-renamed', new_owner: user.login })
    assert.equal((await github.request('GET /repositories/{id}', { id: made.id })).data.owner.login, user.login)
    await github.rest.repos.delete({ owner: user.login, repo: 'tour-renamed' })
    assert.equal((await caught(github.rest.repos.get({ owner: user.login, repo: 'tour-renamed' }))).status, 404)
  },
  async 'what did not change is answered 304 and costs nothing'() {
    const first = await github.rest.issues.listForRepo(where)
    const again = await caught(github.rest.issues.listForRepo({ ...where, headers: { 'if-none-match': first.headers.etag } }))
    assert.equal(again.status, 304)
    assert.equal(again.response.headers['x-ratelimit-used'], first.headers['x-ratelimit-used'])
  },
  async 'GraphQL pages through pull requests'() {
    const query = `query($owner: String!, $repo: String!, $cursor: String) {
      repository(owner: $owner, name: $repo) {
        pullRequests(first: 3, after: $cursor, orderBy: {field: UPDATED_AT, direction: ASC}) {
          nodes { fullDatabaseId number title state author { login __typename } reviews(first: 10) { totalCount nodes { state } } }
          pageInfo { hasNextPage endCursor }
        }
      }
      rateLimit { cost remaining }
    }`
    const { repository } = await github.graphql.paginate(query, where)
    const pulls = (await truth('pull')).filter((p) => p.base.repo.name === where.repo)
    assert.deepEqual(sorted(repository.pullRequests.nodes.map((p) => p.fullDatabaseId)), sorted(pulls.map((p) => p.id)))
    const refused = await caught(github.graphql('{ viewer { nonsense } }'))
    assert.equal(refused.errors[0].extensions.code, 'undefinedField')
    assert.equal((await caught(github.graphql('{ repository(owner: "acme", name: "nothing") { id } }'))).errors[0].type, 'NOT_FOUND')
  },
  async 'an issue is transferred and deleted'() {
    const { data: other } = await github.rest.repos.createInOrg({ org: 'acme', name: 'elsewhere' })
    const { data: made } = await github.rest.issues.create({ ...where, title: 'Move me' })
    const { transferIssue } = await github.graphql('mutation($issue: ID!, $to: ID!) { transferIssue(input: {issueId: $issue, repositoryId: $to}) { issue { id number url } } }', { issue: made.node_id, to: other.node_id })
    const { data: moved } = await github.rest.issues.get({ ...where, issue_number: made.number })
    assert.deepEqual([moved.node_id, moved.number], [transferIssue.issue.id, transferIssue.issue.number])
    await github.graphql('mutation($issue: ID!) { deleteIssue(input: {issueId: $issue}) { repository { name } } }', { issue: moved.node_id })
    assert.equal((await caught(github.rest.issues.get({ owner: 'acme', repo: 'elsewhere', issue_number: moved.number }))).status, 410)
  },
  async 'the secondary limit is waited for'() {
    await control('faults', { kind: 'status', status: 403, path: '/labels$', times: 1, headers: { 'Retry-After': '1' }, body: JSON.stringify({ message: 'You have exceeded a secondary rate limit.' }) })
    const began = Date.now()
    assert.equal((await new Patient({ auth: 'ghp_0123456789abcdef' }).rest.issues.listLabelsForRepo(where)).status, 200)
    assert.ok(Date.now() - began >= 1000)
  },
  async 'an App signs in as its installation, and anew when its token is refused'() {
    const { app_id, private_key, installation_id } = await control('app', { key: true })
    const app = new App({ appId: app_id, privateKey: private_key, Octokit: Here })
    assert.equal((await app.octokit.rest.apps.getAuthenticated()).data.id, app_id)
    const names = []
    await app.eachRepository(({ repository }) => names.push(repository.full_name))
    assert.ok(names.length > 3)
    const installation = await app.getInstallationOctokit(installation_id)
    assert.equal((await installation.rest.issues.listForRepo(where)).status, 200)
    const other = await control('app', { key: true })
    assert.notEqual(other.private_key, private_key)
    assert.equal((await caught(new App({ appId: app_id, privateKey: private_key, Octokit: Here }).octokit.rest.apps.getAuthenticated())).status, 401)
    await control('app', { installation: 'suspended' })
    assert.equal((await caught(installation.rest.issues.listForRepo(where))).status, 403)
    await control('app', { installation: 'installed' })
  },
}

for (const [name, stage] of Object.entries(stages)) {
  const began = Date.now()
  try {
    await stage()
    console.log('ok   ' + name + ' (' + (Date.now() - began) + ' ms)')
  } catch (e) {
    console.log('FAIL ' + name)
    console.log(e)
    process.exit(1)
  }
}
process.exit(0)
