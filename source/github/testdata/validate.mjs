// Validates a GraphQL query, which comes in on standard input, against GitHub's whole
// schema: node validate.mjs <folder with node_modules/@octokit/graphql-schema>
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const require = createRequire(join(process.argv[2], 'x.js'))
const g = require('graphql')
const schema = g.buildSchema(readFileSync(join(process.argv[2], 'node_modules/@octokit/graphql-schema/schema.graphql'), 'utf8'), { assumeValidSDL: true })
const errors = g.validate(schema, g.parse(readFileSync(0, 'utf8')))
for (const e of errors) console.log(e.message)
process.exit(errors.length ? 1 : 0)
