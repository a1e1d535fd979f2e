"""What api and worker do with channels and storage, one file a flow. Each one observes, decides and commits.

place      an order and its payments: arm before you call
confirm    query → door, the way in which almost every order becomes paid
receive    a callback: inbox first, confirm within a budget, acknowledge; and its compensation
refresh    somebody looks: one query at a time however many look
close      the deadline: query, close at the channel, query again
notify     tell the merchant until it has heard
sweep      what is overdue in Postgres, whatever became of Redis
arm        remind Redis of what Postgres remembers
"""
