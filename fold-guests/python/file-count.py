"""A fold visitor that counts files: 1 for a blob, the sum of the children's results for a tree."""


def run(job):
    args = job.args()
    if args["in"].kind == "blob":
        return b"1\n"
    children = job.tree(args["children"].hash)
    return b"%d\n" % sum(int(job.get(child["hash"])) for child in children)
